"""The load: Locust in a process of its own on the client, and the words in which the controller talks to it.

``control``, ``wire``, ``samples`` and ``http`` are the controller's side and import neither locust nor gevent, because
importing Locust monkey-patches the process. Everything else here is imported by ``agent`` alone.
"""
