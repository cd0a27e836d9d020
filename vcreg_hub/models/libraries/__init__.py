"""One adapter a library of networks; `models/build.py` has the table of them."""
