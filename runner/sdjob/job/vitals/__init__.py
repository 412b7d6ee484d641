"""How the attempt stands, for whoever asks from outside: a scraper, a probe, the kubelet."""
