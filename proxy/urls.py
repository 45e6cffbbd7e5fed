"""What is under /v1/. Resolved by `proxy.handler`, which runs none of Django's middleware."""

from django.urls import path

from proxy.views import MessagesView

urlpatterns = [
    path("v1/messages", MessagesView.as_view()),
]
