"""What clients may speak. Each dialect is one pure module: bytes to rows, an answer to bytes; none of them scores.

So a model gets no second path to it by getting a second protocol, and a dialect is tested without a server.
"""
