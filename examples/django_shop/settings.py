"""Django's settings, of as little as the example needs; the database is DATABASE_URL."""

from __future__ import annotations

import os

from psycopg.conninfo import conninfo_to_dict

_address = conninfo_to_dict(os.environ["DATABASE_URL"])

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": _address.pop("dbname", ""),
        "OPTIONS": _address,
    }
}
DEBUG = False
ALLOWED_HOSTS = ["localhost", "127.0.0.1"]
ROOT_URLCONF = "examples.django_shop.views"
INSTALLED_APPS: list[str] = []
USE_TZ = True
