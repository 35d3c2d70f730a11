//! Probes for people: what this host offers, found out by trying.
