"""The responses, one module a domain or two."""
