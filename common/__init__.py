"""What every tier shares at run time."""

import os

# Read when grpc is imported, hence here, before any module of ours can import it. gRPC's older poller answers a
# small message on a stream in two thirds of the time of its event engine (docs/performance.md). Set the variable
# yourself to choose otherwise.
os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_client,-event_engine_listener")
os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its core would write beside our own sentences
