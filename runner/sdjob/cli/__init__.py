"""One file per verb: parse, call, print; errors become exit codes."""
