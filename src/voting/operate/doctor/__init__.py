"""`voting doctor`: `app` runs the checks of `broker` and `database`, which add their findings to a `report.Report`.

Must never import the services or `local`, and never changes what it checks.
"""
