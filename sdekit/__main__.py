"""``python -m sdekit``."""

from sdekit.cli import main

raise SystemExit(main())
