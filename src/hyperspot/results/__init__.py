"""What comes out: verdicts, regions, drawings and their conversions."""
