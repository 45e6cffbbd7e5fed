"""The HTTP data plane: credentials, dispatch, upstream transport, relay and errors. It has no models."""
