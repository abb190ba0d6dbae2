"""pat-sync: passes changes of tokens from a source to `patctl apply`.

main → configuration, status, engine; engine → applier (the child process) and one source (postgresql, feed, file).
"""

from __future__ import annotations

from pathlib import Path

# A link in the repository, a copy where it is installed. The quotes make it a literal for the programs in C++.
VERSION = Path(__file__).with_name("VERSION").read_text().strip().strip('"')
