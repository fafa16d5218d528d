//! The command line: `check`, `trigger`, `listen`, and what it says about itself.
