"""azure-identity, by its default chain of credentials: nothing here knows of an agent."""

import time

from azure.identity import DefaultAzureCredential

token = DefaultAzureCredential().get_token("https://vault.example/.default")
print("token:", token.token)
print("ends:", 0 < token.expires_on - time.time() < 601)
