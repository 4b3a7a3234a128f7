"""boto3, by its own chain of credentials: nothing here knows of an agent."""

import boto3

credentials = boto3.Session().get_credentials()
frozen = credentials.get_frozen_credentials()
print("method:", credentials.method)
print("key:", frozen.access_key)
print("secret:", frozen.secret_key)
print("session:", frozen.token)
print("refreshes:", credentials.refresh_needed(refresh_in=0))
