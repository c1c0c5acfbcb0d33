//! The agent of a containerVM: PID 1, the container process, and its end of serial0.
