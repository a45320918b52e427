"""Handlers: one file per endpoint family. Each takes (context, HTTP request) and returns an ASGI response.

What it does: parse, ask the service, answer. What it does not: authentication, logging, error bodies; those are around.

Files: requests (core Requests out of bodies), chat, completions, responses (with response_input and response_output),
embeddings, tokens, models, adapters, mesh, probes.
"""
