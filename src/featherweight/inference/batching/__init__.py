"""Many answers from one engine at once: `batcher` runs the engine, `requests` are what it serves,
`slots` hold the KV caches.
"""
