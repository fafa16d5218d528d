//! The embedded default: one SQLite file (section 8.3).
