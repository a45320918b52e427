"""HTTP: the OpenAI API, the console page, metrics. Takes a `core.service.Service` and knows nothing else.

What it does: parse strictly, refuse by name, stream, cancel with the client, measure, log.
What it does not: read configuration, choose models, compute.

Files: app (create_app), serve (socket, drain), http_limits, config, routes (the table), openapi; access, problems,
hosts, auth (middleware); parse, explain, errors (bytes to values, errors to bodies); models, generation, cancel, sse,
store (between the wire and the seam); metrics, tracing; static (the folder `console`); wire/ (bodies), api/ (handlers).
"""

from shoal.server.app import create_app
from shoal.server.config import ServerConfig
from shoal.server.serve import ServeOptions, listen, log_to_stderr, serve

__all__ = ["ServeOptions", "ServerConfig", "create_app", "listen", "log_to_stderr", "serve"]
