"""openrs.hub.upload with pauses and timeouts for tests: `python uploads_in_a_hurry.py RUN STARTER`."""

import sys

from openrs.hub import upload as uploads

uploads.WAITS, uploads.TIMEOUT, uploads.POLL = (0.2,), 1.0, 0.1

if __name__ == "__main__":
    sys.exit(uploads.main(sys.argv[1], int(sys.argv[2])))
