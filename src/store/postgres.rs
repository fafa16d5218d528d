//! Postgres (section 8.3).
