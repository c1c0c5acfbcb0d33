//! What this project takes from a Debian or Ubuntu host: packages installed through apt, or downloaded and unpacked without installing.
