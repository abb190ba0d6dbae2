"""pat-sync: passes changes of tokens from a source to `patctl apply`.

main → configuration, status, engine; engine → applier (the child process) and one source (postgresql, feed, file).
"""
