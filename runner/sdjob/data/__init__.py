"""Pictures and captions: records, order, crops, decoding. numpy and Pillow only."""
