"""The OpenAPI document of /v1 and /api, and the pages that show it to staff."""
