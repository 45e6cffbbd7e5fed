"""All configuration, read from the environment once and validated here. README, section "Settings", has the table.

A wrong value raises `SettingError`, a sentence that names the variable; `manage.py` and `bin/serve` print it and stop.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dj_database_url

from keys.causes import BenchPolicy
from keys.keyring import KeyringError, read_keyring
from opensvm import __version__
from opensvm.environment import Environment, SettingError, check_sqlite
from opensvm.openapi.components import COMPONENTS, SECURITY_SCHEMES

env = Environment()
BASE_DIR = Path(__file__).resolve().parent.parent

# -- Where things are ------------------------------------------------------------------------------------------------
OPENSVM_SANDBOX = env.flag("OPENSVM_SANDBOX", False)  # set by `serve --sandbox` for its children
OPENSVM_VAR_DIR = env.path("OPENSVM_VAR_DIR", BASE_DIR / "var", base=BASE_DIR)
OPENSVM_LOG_FILE = env.path("OPENSVM_LOG_FILE", BASE_DIR / "logs" / "opensvm.log", base=BASE_DIR)
OPENSVM_KEYRING = env.path("OPENSVM_KEYRING", OPENSVM_VAR_DIR / "keyring.json", base=BASE_DIR)
OPENSVM_ENVIRONMENT = env.text("OPENSVM_ENVIRONMENT", "production")

# -- Where we listen and how we are reached --------------------------------------------------------------------------
OPENSVM_HOST = env.text("OPENSVM_HOST", "127.0.0.1")
OPENSVM_PORT = env.integer("OPENSVM_PORT", 8000, low=1, high=65535)
_own_host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(OPENSVM_HOST, OPENSVM_HOST)  # noqa: S104  # everywhere is no address
_host_in_url = f"[{_own_host}]" if ":" in _own_host else _own_host
OPENSVM_URL = env.http_url("OPENSVM_URL", f"http://{_host_in_url}:{OPENSVM_PORT}")
OPENSVM_TRUSTED_PROXIES = env.networks("OPENSVM_TRUSTED_PROXIES")
OPENSVM_CORS_ORIGINS = env.origins("OPENSVM_CORS_ORIGINS")  # web pages that may call /v1/; none by default
OPENSVM_DRAIN_SECONDS = env.number("OPENSVM_DRAIN", 30.0, low=0.0, high=3600.0)

# -- Upstream; names and units are those of the OpenRouter setup guide -----------------------------------------------
OPENROUTER_BASE_URL = env.http_url("OPENROUTER_BASE_URL", "https://openrouter.ai/api/v1")
OPENROUTER_TIMEOUT_SECONDS = env.integer("OPENROUTER_TIMEOUT", 600_000, low=1, high=86_400_000) / 1000
OPENROUTER_MAX_RETRIES = env.integer("OPENROUTER_MAX_RETRIES", 3, low=0, high=20)
OPENROUTER_RETRY_DELAY_SECONDS = env.integer("OPENROUTER_RETRY_DELAY", 1000, low=0, high=600_000) / 1000
OPENROUTER_HEADERS = env.headers("OPENROUTER_HEADERS")
OPENROUTER_CONNECT_TIMEOUT_SECONDS = 10.0
MAX_KEYS_PER_REQUEST = 10

# -- Times. OPENSVM_TIME_SCALE shortens all of them together, for tests ----------------------------------------------
OPENSVM_TIME_SCALE = env.number("OPENSVM_TIME_SCALE", 1.0, low=0.001, high=1.0)


def _scaled(seconds: float) -> float:
    return seconds * OPENSVM_TIME_SCALE


def _cooldown(name: str, default: float) -> float:
    return _scaled(env.number(name, default, low=1.0, high=86_400.0))


BENCH_POLICY = BenchPolicy(
    rate_limited_seconds=_cooldown("OPENSVM_COOLDOWN_SECONDS", 300.0),
    account_seconds=_cooldown("OPENSVM_ACCOUNT_COOLDOWN_SECONDS", 60.0),
    credit_seconds=_cooldown("OPENSVM_CREDIT_COOLDOWN_SECONDS", 300.0),
    key_limit_seconds=_cooldown("OPENSVM_KEY_LIMIT_COOLDOWN_SECONDS", 3600.0),
    refused_seconds=_cooldown("OPENSVM_REFUSED_COOLDOWN_SECONDS", 60.0),
)
TRIAL_SECONDS = _scaled(60.0)  # a trial without an event for so long is free again
FIRST_EVENT_SECONDS = _scaled(60.0)  # then a stream begins with a ping, and failover ends
PING_SECONDS = _scaled(15.0)
SETTLE_TIMEOUT_SECONDS = 5.0  # what the ledger does not take by then goes to the journal
ADMIT_TIMEOUT_SECONDS = 0.7  # a database that takes longer for one batch gets no new work
DATABASE_HANG_SECONDS = 15.0  # then the connection is given up
BODY_SILENCE_SECONDS = _scaled(30.0)
BODY_GRACE_SECONDS = _scaled(30.0)
BODY_MIN_BYTES_PER_SECOND = 64 * 1024
HEADER_TIMEOUT_SECONDS = 10.0
BEAT_SECONDS = _scaled(5.0)
DEATH_SECONDS = _scaled(20.0)  # a worker whose beat stood still for so long is dead
RECOVER_SECONDS = _scaled(10.0)
RESET_COOLDOWNS_SECONDS = _scaled(15.0)
AGGREGATE_USAGE_SECONDS = _scaled(60.0)
CHECK_KEYS_SECONDS = _scaled(300.0)
FINISH_ROTATIONS_SECONDS = _scaled(15.0)
DROP_IMPORTS_SECONDS = _scaled(300.0)
RECHECK_INVALID_SECONDS = _scaled(300.0)  # in the first hour; then once in RECHECK_INVALID_LATER_SECONDS
RECHECK_INVALID_LATER_SECONDS = _scaled(3600.0)
SETTLE_COSTS_SECONDS = _scaled(60.0)
COST_RETRY_SECONDS = _scaled(30.0)  # a cost that was asked for too early is asked for again: from here,
COST_RETRY_MOST_SECONDS = _scaled(3600.0)  # growing with its age, to here
COST_GIVE_UP_SECONDS = _scaled(86_400.0)  # then it is estimated
SYNC_CATALOGUE_SECONDS = _scaled(6 * 3600.0)
RETRY_CATALOGUE_SECONDS = _scaled(600.0)  # how often it is seen whether a sync is due, or has to be tried again

# -- Sizes -----------------------------------------------------------------------------------------------------------
MAX_BODY_BYTES = 32 * 1024 * 1024
MAX_BODIES_BYTES = 256 * 1024 * 1024  # of all bodies that one process is reading
MAX_HEADER_BYTES = 64 * 1024
MAX_JSON_DEPTH = 1000
PARSE_IN_THREAD_BYTES = 256 * 1024
LANE_QUEUE_SIZE = 4096
JOURNAL_DIR = OPENSVM_VAR_DIR / "journal"
JOURNAL_MAX_BYTES = 64 * 1024 * 1024

# -- Database --------------------------------------------------------------------------------------------------------
DATABASE_URL = env.text("DATABASE_URL", "")
_database: dict[str, Any]
if DATABASE_URL:
    try:
        _database = dict(dj_database_url.parse(DATABASE_URL))
    except ValueError as exc:
        raise SettingError("DATABASE_URL can't be understood: write postgres://user:password@host:5432/name.") from exc
else:
    _database = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(OPENSVM_VAR_DIR / "opensvm.sqlite3")}
if _database["ENGINE"] == "django.db.backends.sqlite3":
    check_sqlite(sqlite3.sqlite_version_info)
    _database["ENGINE"] = "opensvm.sqlite"
    _database["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
        "cached_statements": 256,  # the lane has some texts for each size of a batch
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;",
    }
elif _database["ENGINE"] == "django.db.backends.postgresql":
    _database["OPTIONS"] = {  # what DATABASE_URL says after its "?" wins
        "connect_timeout": 3,
        "tcp_user_timeout": 10_000,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        # a session whose process is gone without a word must not hold the lock of admission
        "options": "-c idle_in_transaction_session_timeout=20s -c client_connection_check_interval=5s",
        **_database.get("OPTIONS", {}),
    }
else:
    raise SettingError("DATABASE_URL must be postgres:// or sqlite://; other databases are not supported.")
DATABASES = {"default": _database}
IS_SQLITE = _database["ENGINE"] == "opensvm.sqlite"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

OPENSVM_WORKERS = env.integer(
    "OPENSVM_WORKERS", 2 if IS_SQLITE else max(1, min(os.cpu_count() or 1, 8)), low=1, high=64
)

# -- Celery ----------------------------------------------------------------------------------------------------------
# Empty: the folder broker under var/, see opensvm/celery.py
CELERY_BROKER_URL = env.url("CELERY_BROKER_URL", {"redis", "rediss", "amqp", "amqps", "sentinel"})
BROKER_DIR = OPENSVM_VAR_DIR / "broker"

# -- Django ----------------------------------------------------------------------------------------------------------
try:
    SECRET_KEY = read_keyring(OPENSVM_KEYRING).derive_text("django-secret-key")
except KeyringError:
    SECRET_KEY = secrets.token_urlsafe(32)  # before the first start only; `serve` refuses to run without a keyring
DEBUG = False
_url = urlsplit(OPENSVM_URL)
_every_address = {"", "0.0.0.0", "::"}  # noqa: S104 - taken out, not listened on
ALLOWED_HOSTS = sorted({_url.hostname or "", OPENSVM_HOST, "127.0.0.1", "localhost", "[::1]"} - _every_address)
CSRF_TRUSTED_ORIGINS = [f"{_url.scheme}://{_url.netloc}"]
_https = _url.scheme == "https"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = _https
SESSION_COOKIE_HTTPONLY = True
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
ROOT_URLCONF = "opensvm.urls"
ASGI_APPLICATION = "opensvm.asgi.application"
INSTALLED_APPS = [
    "keys",  # before the admin: its templates override the admin's
    "keys.admin_site.OperatorsAdminConfig",  # django.contrib.admin with our site
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",  # the API browser's static files
    "proxy",
    "opensvm",
]
MIDDLEWARE = [
    "opensvm.content_security.ContentSecurityMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "keys.time_zones.TimeZoneMiddleware",
]
FILE_UPLOAD_HANDLERS = ["django.core.files.uploadhandler.MemoryFileUploadHandler"]  # files of keys stay off the disk
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("UserAttributeSimilarityValidator", "MinimumLengthValidator", "CommonPasswordValidator")
]
LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_I18N = False
USE_TZ = True
STATIC_URL = "/static/"
WHITENOISE_USE_FINDERS = True  # nothing to collect at start
REST_FRAMEWORK = {
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "UNAUTHENTICATED_USER": "django.contrib.auth.models.AnonymousUser",
    "URL_FORMAT_OVERRIDE": None,  # `format` is a parameter of our own
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "OpenSVM key service",
    "VERSION": __version__,
    "OAS_VERSION": "3.1.0",
    "APPEND_COMPONENTS": COMPONENTS,
    "SECURITY": [{name: []} for name in SECURITY_SCHEMES],
    "POSTPROCESSING_HOOKS": [],  # the schemas are written by hand: nothing is renamed
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PERMISSIONS": [],  # opensvm/openapi/views.py decides
    "SCHEMA_PATH_PREFIX": "/(v1|api)",
}
LOGGING_CONFIG = "opensvm.logs.configure"
LOGGING = {  # rotated at this size, with so many older files kept
    "file": str(OPENSVM_LOG_FILE),
    "environment": OPENSVM_ENVIRONMENT,
    "max_bytes": 50 * 1024 * 1024,
    "keep": 5,
}
