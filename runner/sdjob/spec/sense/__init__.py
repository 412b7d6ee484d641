"""Rules about fields that are right by themselves and wrong together."""
