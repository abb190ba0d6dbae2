"""pat-sync: moves changes from a source of tokens into `patctl apply`.

main → configuration, status, engine; engine → applier (the child process) and one source (postgresql, feed, file).
"""
