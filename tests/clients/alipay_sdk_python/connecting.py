"""Lets Alipay's client connect to where its address says.

It connects to port 80 whatever its address says, and fails where a port is named. This is the one
thing in it that is bent: a test must not want a port that may be another's.
"""

import http.client
from urllib.parse import urlsplit

from alipay.aop.api.util import WebUtils


def mend_connections():
    """Make the client's connections to the host and the port of its address."""
    WebUtils.get_http_connection = _connected


def _connected(url, query_string, timeout):
    parts = urlsplit(url)
    target = f"{parts.path}?{query_string}" if query_string else parts.path
    return target, http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout)
