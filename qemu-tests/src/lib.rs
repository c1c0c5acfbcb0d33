//! Black-box tests that boot real containerVMs.
