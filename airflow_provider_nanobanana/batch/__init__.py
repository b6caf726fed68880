"""Many requests in one task: ``BatchState`` holds where each stands, ``BatchRunner`` works on them slice by slice."""
