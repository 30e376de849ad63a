"""What people do with it: the command line, roles and rights, the deployment, the examples."""
