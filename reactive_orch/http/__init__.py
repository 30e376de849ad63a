"""The pages an operator or a probe reads: the only importer of aiohttp."""
