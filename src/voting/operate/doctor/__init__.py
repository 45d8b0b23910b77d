"""`voting doctor`: `app` runs the checks of `broker` and `database`, which add findings to a `report.Report`.

Must never import `local` or the services, and must never change what it checks.
"""
