"""The federation over a real network, on NVIDIA FLARE: the only room that knows the engine.

``desk`` (the server's side of the talk, with the ``watch`` over its rounds) and ``station`` (a
site's side) do not know it: they take bytes and give bytes. ``controller`` and ``executor`` put
them into the engine's jobs, ``keeper`` chains jobs into a run, ``person`` speaks for a person with
a kit, ``provisioning`` makes the kits.
"""
