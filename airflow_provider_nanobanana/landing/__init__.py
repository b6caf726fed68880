"""Landing: from a link, or inline bytes, to one verified image in the team's own storage."""
