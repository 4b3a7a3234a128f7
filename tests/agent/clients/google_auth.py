"""google-auth, by application default credentials: nothing here knows of an agent."""

import google.auth
import google.auth.transport.requests

credentials, project = google.auth.default()
credentials.refresh(google.auth.transport.requests.Request())
print("project:", project)
print("account:", credentials.service_account_email)
print("token:", credentials.token)
print("valid:", credentials.valid)
