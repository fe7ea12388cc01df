//! Monitor records, NSM, and what of NLM and rpcbind a lock failover needs.
