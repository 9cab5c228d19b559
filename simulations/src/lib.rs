//! Seeded runs of the production routing brain over one event queue with virtual time.
