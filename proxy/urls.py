"""What is under /v1/. Resolved by `proxy.handler`, which runs none of Django's middleware."""

from django.urls import path

from proxy.local_views import CountTokensView, ModelsView, ModelView
from proxy.views import ChatCompletionsView, MessagesView

urlpatterns = [
    path("v1/messages", MessagesView.as_view()),
    path("v1/messages/count_tokens", CountTokensView.as_view()),
    path("v1/chat/completions", ChatCompletionsView.as_view()),
    path("v1/models", ModelsView.as_view()),
    path("v1/models/<path:model_id>", ModelView.as_view()),
]
