"""Report: from results to tables and pictures. Nothing here loads torch."""
