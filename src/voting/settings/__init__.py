"""Settings: what each service reads from the environment, files or Parameter Store.

It must never import our other packages. No other package reads the environment.
"""
