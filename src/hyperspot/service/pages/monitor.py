"""*Monitor*: whether the process still is what the model was trained on."""

from fastapi import APIRouter

router = APIRouter(include_in_schema=False)
