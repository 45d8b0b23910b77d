"""Settings: what each service reads from the environment, files or Parameter Store.

Imports nothing of ours but `polls`, and no other module reads the environment.
"""
