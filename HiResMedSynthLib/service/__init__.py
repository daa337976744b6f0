"""The backend that a panel talks to over HTTP: protocol and client (numpy and requests only), application and jobs."""
