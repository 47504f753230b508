"""Diagnosis: one file per question, each a pure function of what was seen."""
