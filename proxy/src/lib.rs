//! Portico, one Redis endpoint in front of a Redis Cluster.
