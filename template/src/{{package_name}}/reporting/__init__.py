"""What people see of a run: the HTML page, the table in the terminal, the metrics in Prometheus."""
