"""A campaign of faults: kills, full disks, races, flipped bits, planted code and markup, counted."""
